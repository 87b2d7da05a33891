package meshtest

import (
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// Native is a Connect-native service in this process: it ends the TLS of the mesh itself, and asks
// the agent to authorize each connection.
// https://developer.hashicorp.com/consul/docs/connect/native
type Native struct {
	Service
	Address string
}

// Native registers a Connect-native service, which serves Handler(s.ID) with HTTP/1.1 and h2 until
// t ends. It listens before Consul knows it.
func (m *Mesh) Native(t testing.TB, s Service) *Native {
	t.Helper()
	config := m.Identity(t, s.Name).server("h2", "http/1.1")
	verified := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if err := verified(state); err != nil {
			return err
		}
		return m.authorize(s.Name, state)
	}
	l := verify.Result(consultest.Listen()).Must(t)
	serveTLS(t, l, Handler(s.id()), config)
	s.Port = l.Addr().(*net.TCPAddr).Port
	m.register(t, s, &api.AgentServiceConnect{Native: true})
	return &Native{Service: s, Address: l.Addr().String()}
}

// authorize asks the agent whether a client may connect.
// https://developer.hashicorp.com/consul/api-docs/agent/connect#authorize
func (m *Mesh) authorize(target string, s tls.ConnectionState) error {
	leaf := s.PeerCertificates[0]
	answer, err := m.Client().Agent().ConnectAuthorize(&api.AgentAuthorizeParams{
		Target: target, ClientCertURI: leaf.URIs[0].String(), ClientCertSerial: serial(leaf.SerialNumber.Bytes()),
	})
	switch {
	case err != nil:
		return err
	case !answer.Authorized:
		return errors.New("not authorized: " + answer.Reason)
	}
	return nil
}

// serial returns a serial number as Consul writes it: pairs of hexadecimal digits with colons.
func serial(number []byte) string {
	pairs := make([]string, len(number))
	for i, b := range number {
		pairs[i] = hex.EncodeToString([]byte{b})
	}
	return strings.Join(pairs, ":")
}
