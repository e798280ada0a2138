"""HTTP as providers speak it: clients, addresses, server-sent events, and what their failures mean."""
