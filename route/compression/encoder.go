package compression

import (
	"io"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/molecule-man/go-brrr"

	"sluice/route/places"
)

// A Level is how much time and memory go into compression.
type Level uint8

const (
	Fast Level = iota
	Default
	Best
	levels
)

// ParseLevel returns the level with that name.
func ParseLevel(name string) (l Level, ok bool) {
	i := slices.Index(levelNames[:], name)
	return Level(max(i, 0)), i >= 0
}

var levelNames = [levels]string{"fast", "default", "best"}

// A kind is a coding at a level. stateBytes is the memory of an encoder with its output:
// TestStateBytes measures it.
type kind struct {
	stateBytes int64
	create     func() (codec, error)
}

// A codec is an encoder of a library. It has no goroutine.
type codec interface {
	io.WriteCloser
	Flush() error
	Reset(to io.Writer)
}

// kinds have small windows: the memory of a response in flight counts for more than the
// last percents of its length. Browsers refuse windows of zstd above 8 MiB.
var kinds = [encodings][levels]kind{
	Zstd: {
		Fast:    {1 << 20, newZstd(zstd.SpeedFastest, 128<<10)},
		Default: {9 << 18, newZstd(zstd.SpeedDefault, 128<<10)},
		Best:    {21 << 18, newZstd(zstd.SpeedBetterCompression, 256<<10)},
	},
	Brotli: {
		Fast:    {5 << 18, newBrotli(2, 16)},
		Default: {9 << 18, newBrotli(4, 16)},
		Best:    {21 << 18, newBrotli(6, 18)},
	},
	Gzip: {
		Fast:    {1 << 20, newGzip(1)},
		Default: {5 << 18, newGzip(5)},
		Best:    {7 << 18, newGzip(8)},
	},
}

func newZstd(level zstd.EncoderLevel, window int) func() (codec, error) {
	return func() (codec, error) {
		return zstd.NewWriter(io.Discard, zstd.WithEncoderLevel(level), zstd.WithWindowSize(window),
			zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	}
}

func newBrotli(level, windowBits int) func() (codec, error) {
	return func() (codec, error) {
		return brrr.NewWriterOptions(io.Discard, level, brrr.WriterOptions{LGWin: windowBits})
	}
}

func newGzip(level int) func() (codec, error) {
	return func() (codec, error) { return gzip.NewWriterLevel(io.Discard, level) }
}

// An Encoder compresses one response at a time. It is not safe for concurrent use.
type Encoder struct {
	encoders *Encoders
	client   places.Block
	encoding Encoding
	level    Level
	codec    codec
	output   output
	bytesIn  uint64
	bytesOut uint64
}

// output is what a codec writes to. It returns no errors.
type output []byte

func (o *output) Write(b []byte) (int, error) {
	*o = append(*o, b...)
	return len(b), nil
}

// maxIdleOutput bounds the memory for output that an unused encoder keeps.
const maxIdleOutput = 64 << 10

// Write compresses b. The output may be complete only after Flush.
func (c *Encoder) Write(b []byte) {
	c.bytesIn += uint64(len(b))
	c.check(c.codec.Write(b))
}

// Flush adds all that was written to the output.
func (c *Encoder) Flush() { c.check(0, c.codec.Flush()) }

// End adds the end of the content to the output. Only Take and Release may follow.
func (c *Encoder) End() { c.check(0, c.codec.Close()) }

// check panics after an error: a codec returns only errors of its output.
func (c *Encoder) check(_ int, err error) {
	if err != nil {
		panic("BUG: compression: " + err.Error())
	}
}

// Take removes the output, and returns it. It is valid until the next call.
func (c *Encoder) Take() []byte {
	b := c.output
	c.bytesOut += uint64(len(b))
	c.output = b[:0]
	return b
}

// Release ends the use of c, which may be in the middle of a response.
func (c *Encoder) Release() {
	s := c.encoders
	counters := &s.counters[c.encoding]
	counters.responses.Add(1)
	counters.bytesIn.Add(c.bytesIn)
	counters.bytesOut.Add(c.bytesOut)
	c.bytesIn, c.bytesOut = 0, 0
	if c.output = c.output[:0]; cap(c.output) > maxIdleOutput {
		c.output = nil
	}
	client := c.client
	s.idle[c.encoding][c.level].Put(c)
	s.inUseBytes.Give(client, kinds[c.encoding][c.level].stateBytes)
}
