"""Who may sign: people, their roles, their passwords."""
