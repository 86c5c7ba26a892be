"""What every node of the tests is configured with, and the tokens that fit it."""

import time

import jwt

API_KEY = "k-e2e-7f3a9c52d1"
TOKEN_SECRET = "t-e2e-0123456789abcdef0123456789abcdef"

CONFIG = """
{more}
[api]
keys = ["{api_key}"]

[token]
hmac_secret = "{token_secret}"

[inbox]
history_size = 100
history_ttl = "2m"

[channels]
allow_subscribe = true
allow_publish = true

[namespaces.chat]
history_size = 100
history_ttl = "5m"
recovery = true
presence = true
join_leave = true
allow_subscribe = true
allow_publish = true
allow_presence = true
allow_history = true

[namespaces.long]
history_size = 20000
history_ttl = "5m"
recovery = true
allow_subscribe = true
allow_publish = true
allow_history = true

[namespaces.short]
history_size = 3
history_ttl = "5m"
recovery = true
allow_subscribe = true
allow_publish = true
allow_history = true

[namespaces.readonly]
allow_subscribe = true

[namespaces.closed]
"""


def config(more=""):
    """The configuration file of a node; `more` are top-level keys."""
    return CONFIG.format(api_key=API_KEY, token_secret=TOKEN_SECRET, more=more)


def token(user, lives=3600.0, secret=TOKEN_SECRET, **claims):
    """A connect token of `user` for `lives` seconds."""
    now = time.time()
    return jwt.encode({"sub": user, "exp": int(now + lives), **claims}, secret, algorithm="HS256")
