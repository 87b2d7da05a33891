package packets

import (
	"bytes"
	"testing"

	"sluice/test/verify"
)

func TestIDs(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	of := func(generation byte) ids { return verify.Result(newIDs(key, generation)).Must(t) }
	stranger := verify.Result(newIDs(bytes.Repeat([]byte{8}, 32), 0)).Must(t)
	id := func(g ids) []byte { made := g.new(); return made[:] }
	changed := id(of(0))
	changed[3] ^= 1
	for name, test := range map[string]struct {
		id    []byte
		older bool
	}{
		"of the process before":    {id(of(0)), true},
		"its own":                  {id(of(1)), false},
		"two processes before":     {id(of(255)), false},
		"of the process after":     {id(of(2)), false},
		"of another socket":        {id(stranger), false},
		"changed":                  {changed, false},
		"cut":                      {id(of(0))[:IDLen-1], false},
		"longer":                   {append(id(of(0)), 0), false},
		"none":                     {nil, false},
		"zeros, as a client's may": {make([]byte, IDLen), false},
	} {
		verify.Equal(t, of(1).isOlder(test.id), test.older, "%s", name)
	}
	verify.That(t, of(0).isOlder(id(of(255))), "generations do not begin again after 255")
	verify.That(t, !bytes.Equal(id(of(0)), id(of(0))), "two ids are the same")
}

func TestDestination(t *testing.T) {
	id := []byte("twelve bytes")
	long := func(version byte, length byte) []byte {
		return append(append([]byte{0xc0, 0, 0, 0, version, length}, id...), 0, 1, 2)
	}
	for name, test := range map[string]struct {
		packet []byte
		found  bool
	}{
		"nothing":                             {nil, false},
		"short header":                        {append(append([]byte{0x40}, id...), 1, 2), true},
		"short header and nothing after":      {append([]byte{0x40}, id...), true},
		"short header, cut":                   {append([]byte{0x40}, id...)[:IDLen], false},
		"Initial":                             {long(1, IDLen), true},
		"of an unknown version":               {long(0xfa, IDLen), true},
		"Version Negotiation":                 {long(0, IDLen), false},
		"id that is shorter, as clients have": {long(1, 8), false},
		"id that is longer":                   {long(1, 20), false},
		"long header, cut in the id":          {long(1, IDLen)[:6+IDLen-1], false},
		"long header, cut before the id":      {long(1, IDLen)[:6], false},
		"long header, cut before its length":  {long(1, IDLen)[:5], false},
		"long header of one byte":             {[]byte{0xc0}, false},
	} {
		got := destination(test.packet)
		verify.That(t, (got != nil) == test.found && (got == nil || bytes.Equal(got, id)), "%s: got %x", name, got)
	}
}

// No packet makes destination panic, and what it returns is in the packet.
func FuzzDestination(f *testing.F) {
	f.Add([]byte{0x40, 1, 2, 3})
	f.Add(append([]byte{0xc0, 0, 0, 0, 1, IDLen}, make([]byte, 20)...))
	f.Fuzz(func(t *testing.T, packet []byte) {
		id := destination(packet)
		verify.That(t, id == nil || len(id) == IDLen && bytes.Contains(packet, id), "got %x", id)
	})
}
