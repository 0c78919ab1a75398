"""Jobs on Kubernetes: prints MPIJobs, and checks manifests without a cluster."""
