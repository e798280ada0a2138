"""Secrets by reference: kept on this machine, put on the wire by the proxy, never given to a sandbox.

`store.Credentials` keeps them, `kinds` says what they are, `commands` is what the command line calls.
"""
