package doctor

import (
	"testing"

	"sluice/config"
	"sluice/proxy/packets"
	"sluice/test/verify"
)

// Small buffers are a finding only where HTTP/3 needs larger ones.
func TestUDPBuffers(t *testing.T) {
	with := &config.Config{Listeners: []config.Listener{{HTTP3: true}}}
	for _, test := range []struct {
		config *config.Config
		size   int
		found  bool
	}{
		{with, 212992, true}, {with, packets.WantedBuffer, false}, {with, 0, false}, {nil, 0, false},
	} {
		findings := (&Facts{Config: test.config, ReceiveBuffer: test.size}).bufferFindings()
		verify.Equal(t, len(findings) == 1 && findings[0].Code == CodeUDPBuffer, test.found, "%+v", test)
	}
	verify.Equal(t, (&Facts{Config: &config.Config{Listeners: make([]config.Listener, 1)}}).readReceiveBuffer(), 0, "without HTTP/3")
}
