"""A policy with its tests, as files, for tests of `meshwright policy test`."""

from __future__ import annotations

POLICY = """\
apiVersion: config.meshwright.io/v1alpha1
kind: Policy
metadata: {name: shop, namespace: demo}
spec:
  targets: [{service: shop}]
  allow:
    - {principals: ["*/sa/front"], methods: [GET], paths: [/items/*]}
  limits:
    - {name: each, amount: 3, per: 1m, by: [source.principal]}
"""
TESTS = """\
apiVersion: config.meshwright.io/v1alpha1
kind: PolicyTest
metadata: {name: shop, namespace: demo}
spec:
  request: {destination.service.name: shop, request.method: GET, request.path: "/items/7?x=1"}
  cases:
    - name: the front reads items
      request: {source.principal: spiffe://mesh.local/ns/demo/sa/front}
      expect: allow
    - name: nobody else does
      request: {source.principal: spiffe://mesh.local/ns/demo/sa/mallory}
      expect: {code: PERMISSION_DENIED, rule: shop/otherwise, message: allows no such request}
    - name: three a minute
      request: {source.principal: spiffe://mesh.local/ns/demo/sa/front}
      steps:
        - {repeat: 3, expect: allow}
        - {expect: {code: RESOURCE_EXHAUSTED, message: shop/each}}
        - {at: 67s, expect: allow}
    - name: as a client of quotas
      request: {source.principal: spiffe://mesh.local/ns/demo/sa/front}
      steps:
        - {quotas: {shop/each: 2}, expect: {quotas: {shop/each: 2}}}
        - {quotas: {shop/each: 2}, expect: {quotas: {shop/each: 0}}}
        - {quotas: {shop/each: 2}, bestEffort: true, expect: {quotas: {shop/each: 1}}}
        - {quotas: {other: 5}, expect: {quotas: {other: 5}}}
"""
