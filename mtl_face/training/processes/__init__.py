"""The processes of one run on several hosts: how they meet, agree and end."""
