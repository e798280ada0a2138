"""What the files of an agent's folder may say: agent.yaml, SKILL.md, hooks.json."""
