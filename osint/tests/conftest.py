from jobs.tests.fixtures import (  # noqa: F401 - fixtures are found by their names
    admin_user,
    analyst,
    cluster,
    gate,
    job,
    other,
    running_job,
    start_cluster,
)
