"""One file per job type; `jobs.registry.autodiscover` imports each of them at start."""
