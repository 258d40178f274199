"""A notebook as an API's handler: each workload is one run of it, by papermill, in a fresh kernel that was warm before."""
