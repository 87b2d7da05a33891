package gateway

import (
	"net/netip"

	"github.com/rs/zerolog"

	"sluice/accesslog"
	"sluice/config"
	"sluice/discovery/consul"
	"sluice/proxy"
)

// What the configuration says, in the terms of the packages that do it.

func proxyOptions(c config.Client, log zerolog.Logger, accessLog *accesslog.Logger) proxy.Options {
	o := proxy.Options{
		Log:       log,
		AccessLog: accessLog,
		Timeouts: proxy.Timeouts{
			Head:  c.Timeouts.Head,
			Body:  c.Timeouts.Body,
			Write: c.Timeouts.Write,
			Idle:  c.Timeouts.Idle,
		},
		Limits: proxy.Limits{
			Connections:           c.Limits.Connections,
			ConnectionsPerAddress: c.Limits.ConnectionsPerAddress,
			TargetBytes:           int(c.Limits.Target),
			BodyBytes:             int64(c.Limits.Body),
		},
		TrustedProxies:     make([]netip.Prefix, 0, len(c.TrustedProxies)),
		Forwarded:          c.Forwarded,
		KeepForGoneClients: c.KeepForGoneClients,
		KeepUnderscores:    c.KeepUnderscores,
	}
	for _, s := range c.TrustedProxies {
		if network, ok := config.Network(s); ok { // as the loader checked
			o.TrustedProxies = append(o.TrustedProxies, network)
		}
	}
	return o
}

func transportOptions(s config.Service) proxy.TransportOptions {
	return proxy.TransportOptions{
		IdleTimeout: s.Keepalive.Idle,
		MaxIdle:     s.Keepalive.Max,
	}
}

// ClientOptions returns how to reach Consul, in the terms of its client.
func ClientOptions(c config.Consul, log zerolog.Logger) consul.ClientOptions {
	return consul.ClientOptions{
		Addresses: c.Addresses,
		Token:     string(c.Token),
		TokenFile: c.TokenFile,
		Namespace: c.Namespace,
		Partition: c.Partition,
		TLS: consul.TLSOptions{
			CAFile:             c.TLS.CA,
			CAPath:             c.TLS.CAPath,
			CertFile:           c.TLS.Cert,
			KeyFile:            c.TLS.Key,
			ServerName:         c.TLS.ServerName,
			InsecureSkipVerify: c.TLS.SkipVerify,
		},
		MaxWatches: c.MaxWatches,
		Log:        log,
	}
}
