"""Sidecars for pods: a pure function from pod to pod, the webhook that applies it, and files on the command line.

One decision to know: injecting is done by one function (`pod.inject`) whoever asks, and done again it changes nothing.
"""
