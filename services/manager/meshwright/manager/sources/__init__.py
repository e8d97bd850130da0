"""Where the manager finds services beside the objects that people apply to it: a Kubernetes cluster."""
