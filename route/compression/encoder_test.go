package compression

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/molecule-man/go-brrr"

	"sluice/route/places"
	"sluice/test/verify"
)

// eachKind runs a test for each coding at each level.
func eachKind(t *testing.T, f func(t *testing.T, e Encoding, l Level)) {
	for _, e := range Encodings {
		for l := range levels {
			t.Run(fmt.Sprint(e, " ", levelNames[l]), func(t *testing.T) { f(t, e, l) })
		}
	}
}

func decoder(t testing.TB, e Encoding, from io.Reader) io.Reader {
	t.Helper()
	switch e {
	case Zstd:
		d := verify.Result(zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))).Must(t)
		t.Cleanup(d.Close)
		return d
	case Brotli:
		return brrr.NewReader(from)
	}
	return verify.Result(gzip.NewReader(from)).Must(t)
}

// samples have text and, at the end, bytes that cannot be compressed.
func samples() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < 400<<10 {
		fmt.Fprintf(&b, `{"id":%d,"name":"user-%d","active":%v},`+"\n", r.IntN(1e6), r.IntN(5000), r.IntN(2) == 0)
	}
	for range 200 << 10 {
		b.WriteByte(byte(r.Uint32()))
	}
	return b.Bytes()
}

// encode writes content in pieces of that length, and returns the output.
func encode(c *Encoder, content []byte, length int) (all []byte) {
	for piece := range slices.Chunk(content, length) {
		c.Write(piece)
		all = append(all, c.Take()...)
	}
	c.End()
	return append(all, c.Take()...)
}

// What is encoded is decoded again, also by an encoder that was left in the middle of
// another response.
func TestRoundTrip(t *testing.T) {
	content := samples()
	eachKind(t, func(t *testing.T, e Encoding, l Level) {
		s := NewEncoders()
		for _, length := range []int{1 << 10, 16 << 10, len(content)} {
			c := s.Acquire(places.Many, e, l, 1<<30)
			encoded := encode(c, content, length)
			c.Release()
			got, err := io.ReadAll(decoder(t, e, bytes.NewReader(encoded)))
			verify.Require(t, err == nil && bytes.Equal(got, content), "pieces of %d: %d bytes, %v, want %d", length, len(got), err, len(content))
			verify.That(t, len(encoded) <= len(content)/2, "%d bytes of %d", len(encoded), len(content))
			left := s.Acquire(places.Many, e, l, 1<<30)
			left.Write(content[:length/2])
			left.Release()
		}
		c := s.Acquire(places.Many, e, l, 1<<30)
		c.End()
		got, err := io.ReadAll(decoder(t, e, bytes.NewReader(c.Take())))
		verify.That(t, err == nil && len(got) == 0, "no content: %q, %v", got, err)
		c.Release()
		verify.Equal(t, s.Stats().InUseBytes, 0, "bytes in use")
	})
}

// After Flush, all that was written can be decoded.
func TestFlush(t *testing.T) {
	eachKind(t, func(t *testing.T, e Encoding, l Level) {
		s := NewEncoders()
		c := s.Acquire(places.Many, e, l, 1<<30)
		defer c.Release()
		r, w := io.Pipe()
		done := make(chan string, 1)
		answers := make(chan string)
		go func() {
			d := decoder(t, e, r)
			for range 3 {
				b := make([]byte, len("event 0"))
				_, err := io.ReadFull(d, b)
				answers <- fmt.Sprint(string(b), err)
			}
			rest, err := io.ReadAll(d)
			done <- fmt.Sprint(string(rest), err)
		}()
		for i := range 3 {
			c.Write(fmt.Appendf(nil, "event %d", i))
			c.Flush()
			verify.Result(w.Write(c.Take())).Must(t)
			got, want := <-answers, fmt.Sprintf("event %d<nil>", i)
			verify.Require(t, got == want, "%q, want %q", got, want)
		}
		c.End()
		w.Write(c.Take())
		w.Close()
		verify.Equal(t, <-done, "<nil>", "the end")
	})
}

func TestAcquireIsBounded(t *testing.T) {
	s := NewEncoders()
	state := kinds[Gzip][Default].stateBytes
	first, second := s.Acquire(places.Many, Gzip, Default, 2*state), s.Acquire(places.Many, Gzip, Default, 2*state)
	verify.Require(t, first != nil && second != nil && s.Acquire(places.Many, Gzip, Fast, 2*state) == nil, "want exactly two encoders")
	first.Write([]byte("abc"))
	first.End()
	n := len(first.Take())
	first.Release()
	if third := s.Acquire(places.Many, Gzip, Default, 2*state); third == nil {
		t.Error("no encoder after one was released")
	} else {
		third.Release()
	}
	second.Release()
	got := s.Stats()
	want := (EncodingStats{Gzip, 3, 3, uint64(n)})
	verify.That(t, got.InUseBytes == 0 && got.Skipped == 1 && got.Encodings[slices.Index(Encodings, Gzip)] == want, "%+v, want %+v", got, want)
}

// The memory that counts for an encoder is what it has, with its output. A client that leaves
// answers unread, each of which keeps its encoder, takes no encoder from others, and has at least
// one.
func TestEncodersOfOneClientHaveTheirShare(t *testing.T) {
	s, client := NewEncoders(), func(n byte) places.Block { return places.BlockOf(netip.AddrFrom4([4]byte{10, 0, 0, n})) }
	state := kinds[Gzip][Default].stateBytes
	all := 24 * state
	var left []*Encoder
	for range 24 {
		if c := s.Acquire(client(1), Gzip, Default, all); c != nil {
			left = append(left, c)
		}
	}
	verify.Equal(t, len(left), 3, "encoders of a client of an eighth of 24")
	for range 21 { // of a proxy with many clients
		c := s.Acquire(places.Many, Gzip, Default, all)
		verify.Require(t, c != nil, "no encoder for others")
		left = append(left, c)
	}
	stats := s.Stats()
	verify.That(t, stats.InUseBytes == all && stats.Skipped == 21, "counted: %+v", stats)
	for _, c := range left {
		c.Release()
	}
	verify.Equal(t, s.Stats().InUseBytes, 0, "bytes in use after the end")

	first := s.Acquire(client(1), Gzip, Default, 2*state) // its share is less than an encoder
	verify.That(t, first != nil && s.Acquire(client(1), Gzip, Default, 2*state) == nil, "a client has not exactly one encoder")
	other := client(2)
	for n := byte(3); s.inUseBytes.TakenBy(other) != 0; n++ { // it has the counter of the first
		other = client(n)
	}
	verify.That(t, s.Acquire(other, Gzip, Default, 2*state) != nil, "no encoder for another client")
}

func TestStateBytes(t *testing.T) {
	content := samples()
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // the first one moves what pools have
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	eachKind(t, func(t *testing.T, e Encoding, l Level) {
		const count = 4
		s := NewEncoders()
		before := heap()
		var all []*Encoder
		for range count {
			c := s.Acquire(places.Many, e, l, 1<<40)
			for piece := range slices.Chunk(content, 16<<10) {
				c.Write(piece)
				c.Take()
			}
			all = append(all, c)
		}
		used := (heap() - before) / count
		counted := s.Stats().InUseBytes / count
		verify.That(t, used <= counted && used >= counted/2, "an encoder has %d KiB, and counts as %d KiB", used>>10, counted>>10)
		for _, c := range all {
			c.Release()
		}
	})
}
