"""The application as functions on values: the only room that knows data and networks both."""
