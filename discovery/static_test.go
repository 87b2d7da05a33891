package discovery

import (
	"testing"

	"sluice/test/verify"
)

func TestNewStatic(t *testing.T) {
	s := NewStatic("origin", peers(t, "127.0.0.1:19001", "[::1]:80 weight=0", "app.example.com:65535 weight=65535"))
	inBubble(t, func(t *testing.T, b *bubble) {
		b.Watch("origin", s)
		b.expect(0, call{0, "origin", "127.0.0.1:19001 [::1]:80 app.example.com:65535*65535"})
		status := b.status()
		verify.That(t, status.State == WatchFresh && status.Source == "static" && status.Instances == 3, "status: %+v", status)
	})
	want := []Instance{
		{Service: "origin", ID: "127.0.0.1:19001", Address: "127.0.0.1", Port: 19001, Weight: 1},
		{Service: "origin", ID: "[::1]:80", Address: "::1", Port: 80},
		{Service: "origin", ID: "app.example.com:65535", Address: "app.example.com", Port: 65535, Weight: 65535},
	}
	verify.That(t, equalSets(s.set, want), "got %+v, want %+v", s.set, want)
}

func peers(t *testing.T, texts ...string) (set []Instance) {
	t.Helper()
	for _, text := range texts {
		i, err := ParsePeer(text)
		verify.Require(t, err == nil, "%s: %v", text, err)
		set = append(set, i)
	}
	return set
}

func TestInvalidPeers(t *testing.T) {
	for _, mistake := range []string{
		"", "10.0.0.1", ":80", "::1:80", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:http",
		"10.0.0.1:80 weight=-1", "10.0.0.1:80 weight=65536", "10.0.0.1:80 5", "10.0.0.1:80 weight=1 down",
	} {
		i, err := ParsePeer(mistake)
		verify.That(t, err != nil, "%q: %+v", mistake, i)
	}
}
