"""The way out of a sandbox: a proxy outside it that lets through what the environment's policy names, and nothing else.

`proxy.Proxy` is the port's `Egress`, `policy.rules.Policy` what it enforces, `pages.fetch.fetch` the same policy for
tools that read a page without a sandbox.
"""
