// Package clients runs the programs that people use against one listener of sluice with TLS: curl,
// openssl, h2load, gtlsclient of ngtcp2, grpcurl, ghz and Chromium. It is a module of its own,
// because it pins grpcurl and ghz, and drives the browser. The others are Debian's packages curl,
// openssl, nghttp2-client, ngtcp2-client and chromium.
package clients
