package packets

import (
	"bytes"
	"math"
	"net"
	"testing"

	"golang.org/x/net/ipv4"

	"sluice/test/verify"
)

// newMessage returns a message as quic-go reads into.
func newMessage() ipv4.Message {
	return ipv4.Message{Buffers: [][]byte{make([]byte, 1452)}, OOB: make([]byte, 128)}
}

func messageOf(addr net.Addr, oob, packet string) ipv4.Message {
	return ipv4.Message{Addr: addr, Buffers: [][]byte{[]byte(packet)}, N: len(packet), OOB: []byte(oob), NN: len(oob)}
}

func TestMessages(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), 1452))
	for name, m := range map[string]ipv4.Message{
		"IPv4":               messageOf(&net.UDPAddr{IP: net.IP{192, 0, 2, 1}, Port: 65535}, "control", "packet"),
		"IPv6":               messageOf(&net.UDPAddr{IP: net.ParseIP("2001:db8::1"), Port: 1}, "", long),
		"IPv4 in IPv6":       messageOf(&net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}, "c", "p"),
		"with a zone":        messageOf(&net.UDPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 443}, "", ""),
		"as much as fits in": messageOf(&net.UDPAddr{IP: net.IP{192, 0, 2, 1}}, long[:128], long),
	} {
		whole := appendMessage(nil, &m)
		verify.Equal(t, messageLen(whole), len(whole), "%s: length", name)
		for n := range len(whole) {
			got := newMessage()
			length, err := parseMessage(whole[:n], &got)
			verify.That(t, length == 0 && err == nil, "%s: %d of %d bytes: %d, %v", name, n, len(whole), length, err)
		}
		got := newMessage()
		length, err := parseMessage(append(whole, "another"...), &got)
		verify.That(t, length == len(whole) && err == nil, "%s: length %d of %d, %v", name, length, len(whole), err)
		verify.DeepEqual(t, got.Addr, m.Addr, "%s: address", name)
		verify.Equal(t, string(got.Buffers[0][:got.N]), string(m.Buffers[0]), "%s: packet", name)
		verify.Equal(t, string(got.OOB[:got.NN]), string(m.OOB), "%s: control messages", name)
	}
}

func TestMessagesThatCannotBePassed(t *testing.T) {
	here := &net.UDPAddr{IP: net.IP{192, 0, 2, 1}}
	for name, m := range map[string]ipv4.Message{
		"no UDP address":             messageOf(&net.UnixAddr{Name: "/s"}, "", ""),
		"long control messages":      messageOf(here, string(make([]byte, math.MaxUint8+1)), ""),
		"more than the length field": messageOf(here, "", string(make([]byte, math.MaxUint16))),
	} {
		verify.Equal(t, string(appendMessage([]byte("before"), &m)), "before", "%s", name)
	}
}

func TestMessagesAreCut(t *testing.T) {
	m := messageOf(&net.UDPAddr{IP: net.IP{192, 0, 2, 1}}, "control", "a long packet")
	got := ipv4.Message{Buffers: [][]byte{make([]byte, 6)}, OOB: make([]byte, 3)}
	verify.Result(parseMessage(appendMessage(nil, &m), &got)).Must(t)
	verify.Equal(t, string(got.Buffers[0][:got.N])+" "+string(got.OOB[:got.NN]), "a long con", "packet and control messages")
}

// What another process writes does not make parseMessage panic, and a whole message has a valid
// form, or it is an error.
func FuzzParseMessage(f *testing.F) {
	m := messageOf(&net.UDPAddr{IP: net.IP{192, 0, 2, 1}, Port: 443}, "control", "packet")
	f.Add(appendMessage(nil, &m))
	f.Add([]byte{0, 3, 4, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		got := newMessage()
		length, err := parseMessage(b, &got)
		if err != nil || length == 0 {
			verify.That(t, length == 0 && (err != nil || messageLen(b) == 0 || messageLen(b) > len(b)), "length %d, %v", length, err)
			return
		}
		verify.That(t, length <= len(b) && got.N <= len(got.Buffers[0]) && got.NN <= len(got.OOB), "length %d of %d: %+v", length, len(b), got)
		again := newMessage()
		verify.Result(parseMessage(appendMessage(nil, &got), &again)).Must(t)
		verify.DeepEqual(t, again.Addr, got.Addr, "address")
	})
}
