from jobs.tests.fixtures import (  # noqa: F401 - fixtures are found by their names
    admin_user,
    analyst,
    cluster,
    gate,
    job,
    nothing_is_known_from_before,
    nothing_is_left_open,
    other,
    running_job,
    start_cluster,
)
