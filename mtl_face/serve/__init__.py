"""The local page: photos, videos and a camera, answered in a browser on this machine.

`access` decides who may ask, `model` what is asked of a model, `app` answers over HTTP and a
WebSocket, `server` listens. `page/` holds the page's own files; it loads nothing from elsewhere.
"""
