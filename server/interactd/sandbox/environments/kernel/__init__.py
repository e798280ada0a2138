"""The persistent Python process of an environment: `script` runs in the sandbox, `talk` is the host's side."""
