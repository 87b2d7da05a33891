package consultest

import (
	"testing"

	"github.com/hashicorp/consul/api"
)

// Peer peers the clusters of two agents, which know each other by the names of the agents' nodes. A
// server accepts a peer once it has a certificate of its own, some time after its election, and a
// peer does not wait for that long.
func Peer(t testing.TB, dialer, acceptor *Agent) {
	t.Helper()
	var err error
	defer func() {
		if t.Failed() {
			t.Logf("the latest answer: %v", err)
		}
	}()
	Await(t, "the clusters are peered", func() bool {
		var token *api.PeeringGenerateTokenResponse
		asked := api.PeeringGenerateTokenRequest{PeerName: dialer.options.Node}
		if token, _, err = acceptor.Client().Peerings().GenerateToken(t.Context(), asked, nil); err != nil {
			return false
		}
		establish := api.PeeringEstablishRequest{PeerName: acceptor.options.Node, PeeringToken: token.PeeringToken}
		_, _, err = dialer.Client().Peerings().Establish(t.Context(), establish, nil)
		return err == nil
	})
}
