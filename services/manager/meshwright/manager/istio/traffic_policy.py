"""How connections to a host are made (TrafficPolicy): balancing, limits, ejection, TLS."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.manager.istio.http_route import PortSelector, ShortText
from meshwright.manager.model.document import FieldError, Strict
from meshwright.manager.model.duration import Duration, Period
from meshwright.manager.model.headers import HeaderName

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
SharePercent = Annotated[int, Field(ge=0, le=100)]
_PLACE = re.compile(r"(\*|[^/*\s]+)(/(\*|[^/*\s]+)){0,2}")


def _place(text: str) -> str:
    if len(text) > 256 or not _PLACE.fullmatch(text):
        raise ValueError(f"{text!r} isn't a locality: write REGION, REGION/ZONE or REGION/ZONE/SUBZONE, * for any")
    return text


Place = Annotated[str, AfterValidator(_place)]


class CookieAttribute(Strict):
    """One attribute of a cookie that proxies make (``SameSite``)."""

    name: ShortText
    value: Annotated[str, Field(max_length=256)] = ""


class HttpCookie(Strict):
    """A cookie by which callers stay with an endpoint; with a `ttl` proxies make it, 0s until the browser ends."""

    name: ShortText
    path: Annotated[str, Field(max_length=256)] = ""
    ttl: Duration | None = None
    attributes: Annotated[list[CookieAttribute], Field(max_length=16)] = Field(default_factory=list)


class RingHash(Strict):
    """A ring of at least so many points."""

    minimum_ring_size: Annotated[int, Field(ge=1, le=8_388_608)] = 1024


class Maglev(Strict):
    """A table of so many entries, a prime number."""

    table_size: Annotated[int, Field(ge=2, le=5_000_011)] = 65537

    @model_validator(mode="after")
    def _prime(self) -> Self:
        size = self.table_size
        if size % 2 == 0 or any(size % divisor == 0 for divisor in range(3, int(size**0.5) + 1, 2)):
            raise ValueError(f"tableSize is {size}, which isn't a prime number: write one, such as 65537")
        return self


class ConsistentHash(Strict):
    """What of a request chooses its endpoint. `minimum_ring_size` is the old form of `ring_hash`."""

    http_header_name: HeaderName | None = None
    http_cookie: HttpCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: ShortText | None = None
    ring_hash: RingHash | None = None
    maglev: Maglev | None = None
    minimum_ring_size: Annotated[int, Field(ge=0, le=8_388_608)] | None = None

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        keys = (self.http_header_name, self.http_cookie, self.use_source_ip, self.http_query_parameter_name)
        if sum(bool(key) for key in keys) != 1:
            raise ValueError("needs one key: httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName")
        if sum(table is not None for table in (self.ring_hash, self.maglev, self.minimum_ring_size or None)) > 1:
            raise ValueError("has two tables: write one of ringHash and maglev")
        return self


class Distribute(Strict):
    """Of callers in `from`: how many percent go where."""

    from_: Annotated[Place, Field(alias="from")]
    to: Annotated[dict[Place, Annotated[int, Field(ge=1, le=100)]], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = sum(self.to.values())
        if total != 100:
            raise ValueError(f"the shares of {self.from_} add up to {total}: they are percents, make them 100 together")
        return self


class Failover(Strict):
    """Where callers of region `from` go when all of it is unhealthy."""

    from_: Annotated[ShortText, Field(alias="from")]
    to: ShortText

    @model_validator(mode="after")
    def _elsewhere(self) -> Self:
        if self.from_ == self.to:
            raise ValueError(f"leads from {self.from_} to itself: name another region")
        return self


class LocalityLb(Strict):
    """Where requests go by where their caller is."""

    distribute: Annotated[list[Distribute], Field(max_length=64)] = Field(default_factory=list)
    failover: Annotated[list[Failover], Field(max_length=64)] = Field(default_factory=list)
    failover_priority: Annotated[list[ShortText], Field(max_length=32)] = Field(default_factory=list)
    enabled: bool | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.distribute and (self.failover or self.failover_priority):
            raise ValueError("has distribute beside failover or failoverPriority: write one of them")
        return self


class Warmup(Strict):
    """New endpoints get more and more of their share."""

    duration: Period
    minimum_percent: Annotated[float, Field(ge=0, le=100, strict=False)] | None = None
    aggression: Annotated[float, Field(ge=1, strict=False)] | None = None


class LoadBalancer(Strict):
    """How one of the endpoints is chosen."""

    simple: Literal["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"] | None = None
    consistent_hash: ConsistentHash | None = None
    locality_lb_setting: LocalityLb | None = None
    zone_aware_lb_setting: Any = None
    warmup: Warmup | None = None
    warmup_duration_secs: Period | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.zone_aware_lb_setting is not None:
            raise ValueError("zoneAwareLbSetting isn't known to this mesh: write localityLbSetting")
        if self.simple is not None and self.consistent_hash is not None:
            raise ValueError("has simple and consistentHash: write one of them")
        if self.warmup is not None and self.warmup_duration_secs is not None:
            raise ValueError("has warmup and warmupDurationSecs, its old form: write warmup")
        return self


class TcpKeepalive(Strict):
    """When the kernel asks whether the peer is still there."""

    probes: Annotated[int, Field(ge=0, le=127)] | None = None
    time: Duration | None = None
    interval: Duration | None = None


class TcpSettings(Strict):
    """Limits of connections, whatever they carry."""

    max_connections: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    connect_timeout: Period | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: Period | None = None
    idle_timeout: Duration | None = None


class Http2KeepAlive(Strict):
    """HTTP/2 pings that find a peer that vanished."""

    interval: Period
    timeout: Period | None = None


class HttpSettings(Strict):
    """Limits of requests."""

    http1_max_pending_requests: Annotated[Count, Field(alias="http1MaxPendingRequests")] = 0
    http2_max_requests: Annotated[Count, Field(alias="http2MaxRequests")] = 0
    max_requests_per_connection: Count = 0
    max_retries: Count = 0
    idle_timeout: Duration | None = None
    h2_upgrade_policy: Annotated[Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"], Field(alias="h2UpgradePolicy")] = (
        "DEFAULT"
    )
    use_client_protocol: bool = False
    max_concurrent_streams: Count = 0
    http2_keep_alive: Annotated[Http2KeepAlive | None, Field(alias="http2KeepAlive")] = None

    @model_validator(mode="after")
    def _one_protocol(self) -> Self:
        if self.use_client_protocol and self.h2_upgrade_policy == "UPGRADE":
            raise ValueError("has useClientProtocol and h2UpgradePolicy UPGRADE: write one of them")
        return self


class ConnectionPool(Strict):
    """Limits of one proxy's connections to a host."""

    tcp: TcpSettings | None = None
    http: HttpSettings | None = None


class OutlierDetection(Strict):
    """When an endpoint is left out for a while. `consecutive_errors` is the old form of the gateway errors."""

    consecutive_errors: Count | None = None
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failures: Count | None = None
    consecutive_gateway_errors: Count | None = None
    consecutive_5xx_errors: Annotated[Count | None, Field(alias="consecutive5xxErrors")] = None
    interval: Period | None = None
    base_ejection_time: Period | None = None
    max_ejection_percent: SharePercent | None = None
    min_health_percent: SharePercent | None = None
    outlier_detection_http_error_codes: Any = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.outlier_detection_http_error_codes is not None:
            raise ValueError(
                "outlierDetectionHttpErrorCodes isn't known to this mesh: write consecutive5xxErrors or "
                "consecutiveGatewayErrors"
            )
        if self.consecutive_errors is not None and self.consecutive_gateway_errors is not None:
            raise ValueError("has consecutiveErrors and consecutiveGatewayErrors, its new form: write the latter")
        return self


Path = Annotated[str, Field(min_length=1, max_length=1024)]


class ClientTls(Strict):
    """TLS towards the host. ISTIO_MUTUAL is the mesh's own, by SPIFFE ID; files are the proxies' own."""

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    client_certificate: Path | None = None
    private_key: Path | None = None
    ca_certificates: Path | None = None
    credential_name: ShortText | None = None
    subject_alt_names: Annotated[list[ShortText], Field(max_length=64)] = Field(default_factory=list)
    sni: ShortText | None = None
    insecure_skip_verify: bool = False
    ca_crl: Path | None = None

    @model_validator(mode="after")
    def _of_its_mode(self) -> Self:
        files = (self.client_certificate, self.private_key)
        if self.credential_name:
            raise ValueError(
                "credentialName is read at gateways only: write clientCertificate, privateKey and caCertificates, "
                "files of the callers' proxies"
            )
        if self.mode == "MUTUAL" and not all(files):
            raise ValueError("mode MUTUAL shows a certificate: write clientCertificate and privateKey")
        if self.mode != "MUTUAL" and any(files):
            raise ValueError(
                f"mode {self.mode} shows no certificate of one's own: remove clientCertificate and privateKey"
            )
        if self.mode in ("DISABLE", "ISTIO_MUTUAL") and (self.ca_certificates or self.sni):
            raise ValueError(f"mode {self.mode} takes no caCertificates or sni: remove them")
        if self.ca_crl:
            raise ValueError("caCrl isn't known to this mesh: revoke by a shorter-lived certificate")
        if self.insecure_skip_verify and (self.ca_certificates or self.subject_alt_names):
            raise ValueError("insecureSkipVerify believes everybody: remove it, or caCertificates and subjectAltNames")
        return self


class RetryBudget(Strict):
    """Tries in parallel: percent of the requests under way, and at least so many."""

    percent: Annotated[float, Field(ge=0, le=100, strict=False)] = 20.0
    min_retry_concurrency: Annotated[int, Field(ge=0, le=2**31 - 1)] = 3
    budget_interval: Duration | None = None


class PortPolicy(Strict):
    """All that can be said of one port."""

    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTls | None = None


class PortTrafficPolicy(PortPolicy):
    """What is said of one port; it stands instead of what is said of the whole host."""

    port: PortSelector


class TrafficPolicy(PortPolicy):
    """What is said of a host, or of a subset."""

    port_level_settings: Annotated[list[PortTrafficPolicy], Field(max_length=64)] = Field(default_factory=list)
    tunnel: Any = None
    proxy_protocol: Any = None
    retry_budget: RetryBudget | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.tunnel is not None:
            raise ValueError("tunnel isn't known to this mesh: lead the calls through a gateway by a VirtualService")
        if self.proxy_protocol is not None:
            raise ValueError("proxyProtocol isn't known to this mesh: called proxies know their callers by certificate")
        numbers = [entry.port.number for entry in self.port_level_settings]
        twice = sorted({number for number in numbers if numbers.count(number) > 1})
        if twice:
            raise FieldError("spec.trafficPolicy.portLevelSettings", f"port {twice[0]} is there twice: write it once")
        return self
