package certificates

import "crypto/tls"

// MinVersion is the oldest version of TLS that clients may use (RFC 8996).
const MinVersion = tls.VersionTLS12

// Suites are the cipher suites that clients may use with TLS 1.2: the ones with forward secrecy
// and authenticated encryption (RFC 9325, section 4.2). TLS 1.3 has no others. Go chooses the order.
var Suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}
