"""Kinds of Istio's first manager (config.istio.io/v1alpha2, 2017): routes, policies, ingress, egress."""
