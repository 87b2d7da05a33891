package http2

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/proxy/fields"
	"sluice/proxy/socket"
	"sluice/test/verify"
)

// A testRole is a role that counts, and opens the streams that the other side opens if it is a
// server.
type testRole struct {
	Conn
	client bool
	late   int
}

func (r *testRole) Side() (socket.Side, *socket.TLSConn) { return socket.Side{}, nil }
func (r *testRole) OnPanic()                             {}
func (r *testRole) MayHold(int64) bool                   { return true }
func (r *testRole) OnSettings()                          {}
func (r *testRole) OnPong([]byte)                        {}
func (r *testRole) OnGoAway(uint32)                      {}
func (r *testRole) OnWritten(error)                      {}
func (r *testRole) OnFlushed()                           {}
func (r *testRole) OnReset(*Stream)                      {}
func (r *testRole) OnFault() *Error                      { return nil }
func (r *testRole) OnLate(uint32, *Stream) *Error        { r.late++; return nil }
func (r *testRole) OnOpen(id uint32, ends bool, err *Error) *Error {
	if r.client || err != nil {
		return ErrStreamID
	}
	r.open(id)
	return nil
}

func (r *testRole) open(id uint32) *Stream {
	s := new(Stream)
	s.Init(&r.Conn, testStreamRole{s}, new(socket.SweepEntry), 0)
	s.OpenLocked(id)
	return s
}

type testStreamRole struct{ s *Stream }

func (r testStreamRole) OnHead(ends bool, err *Error) *Error {
	if ends {
		r.s.EndReceivedLocked()
	}
	return err
}
func (r testStreamRole) OnData(_ int, ends bool) error {
	if ends { // as if Content-Length had announced more
		return fields.ErrMalformed
	}
	return nil
}
func (r testStreamRole) OnReset(ErrorCode) *Error      { r.s.StopLocked(socket.ErrClosedEarly); return nil }
func (r testStreamRole) OnStop()                       {}
func (r testStreamRole) Patience(_ bool) time.Duration { return 0 }

// newTestConn returns a connection with the open stream 1 and the closed stream 3. It sends
// nothing.
func newTestConn(client bool) *testRole {
	r := &testRole{client: client}
	r.Init(ConnOptions{
		Role: r, Client: client, Sweeper: socket.NewSweeper(),
		ListBytes: fields.UsualListBytes, BlockBytes: fields.UsualListBytes, Continuations: 8, Window: 1 << 20, Slack: 1 << 19, StreamWindow: InitialWindow,
	})
	r.Flushing = true // nothing is to be sent
	r.open(1)
	r.open(3).CloseLocked()
	r.Output.Frames = nil
	return r
}

func frame(t FrameType, flags uint8, stream uint32, payload ...byte) []byte {
	return append(AppendFrameHeader(nil, FrameHeader{Length: len(payload), Type: t, Flags: flags, StreamID: stream}), payload...)
}

// Both roles do the same with frames that do not depend on the role.
func TestFramesInBothRoles(t *testing.T) {
	settings := AppendSettings(nil)
	ping := []byte("12345678")
	longFields := frame(FrameHeaders, FlagEndHeaders, 1, bytes.Repeat([]byte{0x82}, 2000)...)
	// A name of 4000 bytes, and in the next line that name.
	longNames := append([]byte{0x40, 0x7f, 0xa1, 0x1e}, strings.Repeat("n", 4000)+"\x00"...)
	longNames = frame(FrameHeaders, FlagEndHeaders, 1, append(longNames, bytes.Repeat([]byte{0x0f, 62 - 0x0f, 0}, 300)...)...)
	for _, test := range []struct {
		name string
		room int64  // for bytes of bodies on the connection; 0: enough
		in   []byte // after SETTINGS, unless it begins with another frame
		bare bool   // without SETTINGS before
		err  *Error
		out  []byte // after the acknowledgement of SETTINGS
	}{
		{name: "first frame", in: AppendPing(nil, 0, ping), bare: true, err: errNoSettings},
		{name: "acknowledgement first", in: AppendSettingsAck(nil), bare: true, err: errNoSettings},
		{name: "long frame", in: AppendFrameHeader(nil, FrameHeader{Length: MaxFrameBytes + 1, Type: 0xee}), err: errFrameTooLong},
		{name: "PING", in: AppendPing(nil, 0, ping), out: AppendPing(nil, FlagAck, ping)},
		{name: "answer to PING", in: AppendPing(nil, FlagAck, ping)},
		{name: "SETTINGS", in: settings, out: AppendSettingsAck(nil)},
		{name: "unknown frame", in: frame(0xee, 0xff, 77, 1, 2, 3)},
		{name: "PRIORITY", in: frame(FramePriority, 0, 1, 0, 0, 0, 3, 1)},
		{name: "PRIORITY of itself", in: frame(FramePriority, 0, 1, 0, 0, 0, 1, 1), err: errDependency},
		{name: "short PRIORITY", in: frame(FramePriority, 0, 1, 0, 0, 0, 3), err: errFrameSize},
		{name: "push", in: frame(FramePushPromise, 0, 1, 0, 0, 0, 2), err: errPush},
		{name: "CONTINUATION alone", in: frame(FrameContinuation, FlagEndHeaders, 1, 0x82), err: errContinuation},
		{name: "interrupted block", in: append(frame(FrameHeaders, 0, 1, 0x82), settings...), err: errContinuation},
		{name: "head with an even id", in: frame(FrameHeaders, FlagEndHeaders, 2, 0x82), err: ErrStreamID},
		{name: "malformed block", in: frame(FrameHeaders, FlagEndHeaders, 1, 0x80), err: errCompression},
		{name: "malformed block of a closed stream", in: frame(FrameHeaders, FlagEndHeaders, 3, 0x80), err: errCompression},
		{name: "fields that are too long", in: longFields, err: ErrListTooLong},
		{name: "names that are too long", in: longNames, err: errExpansion},
		{name: "DATA", in: frame(FrameData, 0, 1, 1)},
		{name: "padding beyond the frame", in: frame(FrameData, FlagPadded, 1, 2, 0), err: errPadding},
		{name: "DATA of a closed stream", in: frame(FrameData, 0, 3, 1)},
		{name: "DATA of an idle stream", in: frame(FrameData, 0, 5, 1), err: ErrStreamID},
		{name: "DATA beyond the window of the stream", in: bytes.Repeat(frame(FrameData, 0, 1, make([]byte, MaxFrameBytes)...), 4), err: errTooMuchData},
		{name: "DATA beyond the window of the connection", room: 9, in: frame(FrameData, 0, 1, make([]byte, 10)...), err: errTooMuchData},
		{name: "reset of an idle stream", in: frame(FrameResetStream, 0, 5, 0, 0, 0, 8), err: ErrStreamID},
		{name: "reset of a closed stream", in: frame(FrameResetStream, 0, 3, 0, 0, 0, 8)},
		{name: "window of an idle stream", in: AppendWindowUpdate(nil, 5, 1), err: ErrStreamID},
		{name: "window of a closed stream", in: AppendWindowUpdate(nil, 3, 0)},
		{name: "no increment", in: AppendWindowUpdate(nil, 0, 0), err: errNoIncrement},
		{name: "no increment of a stream", in: AppendWindowUpdate(nil, 1, 0), out: AppendResetStream(nil, 1, ProtocolError)},
		{name: "window too large", in: AppendWindowUpdate(nil, 0, MaxWindow), err: errWindow},
		{name: "window of a stream too large", in: AppendWindowUpdate(nil, 1, MaxWindow), out: AppendResetStream(nil, 1, FlowControlError)},
		{name: "flood", in: bytes.Repeat(AppendWindowUpdate(nil, 0, 1), 2*OverheadBytes/13), err: errFlood},
		{name: "flood of PRIORITY", in: bytes.Repeat(frame(FramePriority, 0, 1, 0, 0, 0, 3, 1), 2*OverheadBytes/14), err: errFlood},
		{name: "flood of unknown frames", in: bytes.Repeat(frame(0xee, 0, 0, make([]byte, 1000)...), 2*OverheadBytes/1009), err: errFlood},
		{name: "flood of SETTINGS", in: bytes.Repeat(settings, MaxAnswers+1), err: errNotRead},
		{name: "settings in a frame", in: AppendSettings(nil, make([]Setting, 101)...), err: errTooManySettings},
		{name: "initial window", in: AppendSettings(nil, Setting{SettingInitialWindowSize, 1 << 31}), err: errWindowSetting},
		{name: "initial window of all streams", in: append(AppendWindowUpdate(nil, 1, 1<<30), AppendSettings(nil, Setting{SettingInitialWindowSize, 1 << 30})...), err: errWindow},
		{name: "flood of CONTINUATION", in: append(frame(FrameHeaders, 0, 1, 0x82), bytes.Repeat(frame(FrameContinuation, 0, 1), 9)...), err: errBlockTooLong},
		{name: "block without an end", in: append(frame(FrameHeaders, 0, 1, 0x82), bytes.Repeat(frame(FrameContinuation, 0, 1, make([]byte, MaxFrameBytes)...), fields.UsualListBytes/MaxFrameBytes+1)...), err: errBlockTooLong},
		{name: "flood of empty DATA", in: bytes.Repeat(frame(FrameData, 0, 1), 2*OverheadBytes/9), err: errFlood},
		{name: "unread answers", in: bytes.Repeat(AppendPing(nil, 0, ping), MaxAnswers+1), err: errNotRead},
	} {
		for _, client := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, client %t", test.name, client), func(t *testing.T) {
				r := newTestConn(client)
				if test.room > 0 {
					r.received = test.room
				}
				in := test.in
				if !test.bare {
					if _, err := r.ProcessLocked(settings, 0); err != nil {
						t.Fatal(err)
					}
					r.Output.Take()
				}
				taken, err := r.ProcessLocked(in, 0)
				verify.That(t, err == test.err && (err != nil || taken == len(in)), "%d of %d bytes, %v; want %v", taken, len(in), err, test.err)
				if err == nil && !bytes.Equal(r.Output.Frames, test.out) {
					t.Errorf("sent %x, want %x", r.Output.Frames, test.out)
				}
			})
		}
	}
}

// Bytes are given back when they are read, dropped or refused, on the stream and on the connection,
// in both roles.
func TestWindowsAreGivenBack(t *testing.T) {
	for _, client := range []bool{false, true} {
		r := newTestConn(client)
		r.Settled = true
		s := r.Streams[1]
		data := frame(FrameData, FlagPadded, 1, append([]byte{7}, make([]byte, 8007)...)...)
		for i := range 1000 {
			id := uint32(1)
			if i%2 > 0 {
				id = 3 // closed
			}
			data[8] = byte(id)
			_, err := r.ProcessLocked(data, 0)
			verify.Require(t, err == nil, "client %t, frame %d: %v", client, i, err)
			for s.Body.Length() > 0 {
				s.TakeLocked(make([]byte, 3000))
			}
			r.Output.Frames = nil
		}
		verify.Equal(t, r.late, 500, "client %t: late frames", client)
		data[8] = 1
		if _, err := r.ProcessLocked(data, 0); err != nil || s.granted+s.owed != InitialWindow-8000 {
			t.Errorf("client %t: %v, %d bytes may be sent on the stream", client, err, s.granted+s.owed)
		}
		_, err := r.ProcessLocked(frame(FrameData, FlagEndStream, 1, 1, 2, 3), 0)
		verify.That(t, err == nil && s.Stopped, "client %t: %v, stopped %t", client, err, s.Stopped)
		if s.CloseLocked(); r.received+r.owed != 1<<20 { // its body was not read
			t.Errorf("client %t: %d bytes may be sent", client, r.received+r.owed)
		}
	}
}

// Each stream counts as open until it has ended in both directions or has stopped, and as receiving
// until its end has arrived or it has stopped.
func TestOpenStreamsAreCounted(t *testing.T) {
	type step struct {
		name            string
		do              func(s *Stream)
		open, receiving int32
	}
	stop := step{"stop", func(s *Stream) { s.StopLocked(socket.ErrClosedEarly) }, 0, 0}
	for _, steps := range [][]step{
		{{"received", (*Stream).EndReceivedLocked, 1, 0}, {"sent", (*Stream).EndSentLocked, 0, 0}, stop},
		{{"sent", (*Stream).EndSentLocked, 1, 1}, {"received", (*Stream).EndReceivedLocked, 0, 0}, stop},
		{{"received", (*Stream).EndReceivedLocked, 1, 0}, stop, stop},
		{{"sent", (*Stream).EndSentLocked, 1, 1}, stop},
		{{"reset", func(s *Stream) { s.ResetLocked(Cancel, socket.ErrClosedEarly) }, 0, 0}, stop},
	} {
		r := &testRole{}
		r.Init(ConnOptions{Role: r, Sweeper: socket.NewSweeper(), Window: InitialWindow})
		r.Flushing = true
		s := r.open(1)
		for _, step := range steps {
			if step.do(s); r.Open != step.open || r.Receiving != step.receiving {
				t.Errorf("after %s: %d open, %d receiving; want %d, %d", step.name, r.Open, r.Receiving, step.open, step.receiving)
			}
		}
	}
}

// However often the bucket leaks, it leaks one in each period, and an empty one saves
// nothing.
func TestLeakyBucket(t *testing.T) {
	const period = time.Second
	for _, step := range []time.Duration{time.Millisecond, 300 * time.Millisecond, period, 7 * period} {
		var b LeakyBucket
		b.Leak(int64(time.Hour), period)
		b.Add(1000)
		for now := time.Hour; now <= time.Hour+210*period; now += step {
			b.Leak(int64(now), period)
		}
		verify.Equal(t, b.Level, 790, "step %v: level after 210 periods", step)
		b.Leak(int64(2*time.Hour), period)
		if b.Add(1); b.Level != 1 {
			t.Errorf("step %v: level %d, want 1", step, b.Level)
		}
		if b.Add(-5); b.Level != 0 {
			t.Errorf("step %v: level %d, want 0", step, b.Level)
		}
	}
}

// An interruption ends later waits for room too, if the wake has gone to a send that ended at the
// same time.
func TestInterruptedStreamAwaitsNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestConn(false)
		s := c.Streams[1]
		s.entry.Interrupt()
		<-s.waits.writable
		c.Mu.Lock()
		defer c.Mu.Unlock()
		err := s.SendLocked(nil, make([]byte, 2*InitialWindow), nil, false)
		verify.Equal(t, err, os.ErrDeadlineExceeded, "the error of a send without room")
	})
}

// A body whose stream is reset after a part of it was found is no complete one.
func TestResetWithinABodyIsNoEnd(t *testing.T) {
	s := newTestConn(false).Streams[1]
	s.Body.Append([]byte("a part"))
	s.StopLocked(socket.ErrClosedEarly)
	n, last := s.TakeLocked(make([]byte, 100))
	verify.That(t, !last, "%d bytes, and the end", n)
}
