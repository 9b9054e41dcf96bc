"""What `serac doctor` looks at: each check returns findings, and none changes anything that is kept."""
