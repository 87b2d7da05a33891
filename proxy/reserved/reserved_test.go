package reserved

import (
	"testing"

	"sluice/proxy/http1"
	"sluice/test/verify"
)

// A name with an underscore, which is no spelling of a reserved one, is dropped on the way to peers
// only: in a trailer section as in a head.
func TestUnderscoresPassToClients(t *testing.T) {
	r, name := Rules{DropUnderscores: true}, []byte("x_sum")
	for to, want := range map[Direction]bool{ToPeers: true, ToClients: false} {
		verify.Equal(t, r.Drop(http1.NameOf(name), name, to), want, "of a head, direction %d: dropped", to)
		verify.Equal(t, r.DropFromTrailer([]byte("x_sum: 1\r\n"), to), want, "of a trailer section, direction %d: dropped", to)
	}
	verify.That(t, r.DropFromTrailer([]byte("x_request-id: 1\r\n"), ToPeers), "a spelling passes to peers")
	verify.That(t, r.DropFromTrailer([]byte("x-sluice_a: 1\r\n"), ToClients), "a spelling of a reserved name passes")
}
