"""Where the manager finds services beside the objects that people apply: a Kubernetes cluster, and registrations."""
