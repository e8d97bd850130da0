"""Kinds of Istio's networking API that the mesh takes."""
