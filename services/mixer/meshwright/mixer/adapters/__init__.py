"""Adapters that ship with mixer. They use the SDK as any third party does.

One decision to know: importing all of them must stay cheap, because every mixer and every compiler does; so whatever
needs an HTTP client, the cluster's API or the native module imports it when a handler opens.
"""

from meshwright.mixer.adapters.apikey import ADAPTER as _APIKEY
from meshwright.mixer.adapters.fluentd import ADAPTER as _FLUENTD
from meshwright.mixer.adapters.kubernetesenv import ADAPTER as _KUBERNETESENV
from meshwright.mixer.adapters.noop import ADAPTER as _NOOP
from meshwright.mixer.adapters.opa import ADAPTER as _OPA
from meshwright.mixer.adapters.opentelemetry import ADAPTER as _OPENTELEMETRY
from meshwright.mixer.adapters.rbac import ADAPTER as _RBAC
from meshwright.mixer.adapters.redisquota import ADAPTER as _REDISQUOTA
from meshwright.mixer.adapters.statsd import DOGSTATSD as _DOGSTATSD
from meshwright.mixer.adapters.statsd import STATSD as _STATSD
from meshwright.mixer.adapters.webhook import ADAPTER as _WEBHOOK
from meshwright.mixer.adapters.zipkin import ADAPTER as _ZIPKIN

BUILT_IN = (
    _APIKEY,
    _DOGSTATSD,
    _FLUENTD,
    _KUBERNETESENV,
    _NOOP,
    _OPA,
    _OPENTELEMETRY,
    _RBAC,
    _REDISQUOTA,
    _STATSD,
    _WEBHOOK,
    _ZIPKIN,
)
"""Adapters that ship with mixer."""
