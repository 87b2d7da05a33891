package http2

import (
	"bytes"

	"sluice/proxy/fields"
)

// MaxOutputBytes is the number of unsent bytes above which an Output takes no more bodies.
const MaxOutputBytes = 64 << 10

// MaxAnswers is the number of unsent frames that answer the other side above which its connection
// must be closed: it does not read.
const MaxAnswers = 1000

var errNotRead = &Error{EnhanceYourCalm, "answers to control frames are not read"}

// An Output is what one side of a connection sends, whichever role it has: frames, and the streams
// that wait for room and for the windows of the other side. It is not safe for concurrent use.
type Output struct {
	Frames []byte // to send next; its user appends frames without bodies
	Window Window // bytes of bodies that the other side accepts on the connection

	initial     Window // of a new stream
	spare       []byte // memory for Frames
	answers     int    // in Frames
	reduced     bool   // the next field block acknowledges a smaller SETTINGS_HEADER_TABLE_SIZE
	first, last *Sender
}

// NewOutput returns the output of a new connection.
func NewOutput() Output { return Output{Window: InitialWindow, initial: InitialWindow} }

// A Sender is the sending half of a stream. The zero Sender sends nothing.
type Sender struct {
	owner  Owner
	stream uint32
	window Window // bytes of the body that the other side accepts

	head, body, trailer []byte // the first and the last are frames
	endsWithBody, ends  bool   // the stream ends with body, or with the last of them
	sending             bool   // a part of them is not yet in the Output
	halted              bool
	next                *Sender
	queued              bool
}

// An Owner is told what its Sender has moved to the Output: n bytes of the body. whole: with them
// all that Send was given. ends: the stream has ended.
type Owner interface{ Moved(n int, whole, ends bool) }

// Open makes s the sending half of a new stream.
func (o *Output) Open(s *Sender, owner Owner, stream uint32) {
	*s = Sender{owner: owner, stream: stream, window: o.initial}
}

// Send queues frames, a body and frames of a trailer section behind the frames of the other
// streams. ends: the stream ends with the last of them; if that is head, head says so. They must
// not change until IsSending returns false. The next Fill moves them.
func (o *Output) Send(s *Sender, head, body, trailer []byte, ends bool) {
	s.head, s.body, s.trailer, s.ends = head, body, trailer, ends
	s.endsWithBody = ends && len(trailer) == 0 && (len(body) > 0 || len(head) == 0)
	s.sending = true
	o.push(s)
}

// SendNow moves a body and frames of a trailer section, with which the stream ends, past those that
// wait, if the body fits a frame and the windows. It reports whether it did.
func (o *Output) SendNow(s *Sender, body, trailer []byte) bool {
	if Window(len(body)) > min(MaxFrameBytes, s.window, o.Window) {
		return false
	}
	cut := spend(body, len(trailer) == 0, &s.window, &o.Window)
	o.Frames = cut.appendFrame(o.Frames, s.stream)
	o.appendBlock(trailer)
	s.owner.Moved(len(body), false, true)
	return true
}

// IsSending reports whether a part of what Send was given has not been moved.
func (s *Sender) IsSending() bool { return s.sending }

// IsQueued reports whether s waits for its turn, for room, or for the window of the connection.
func (s *Sender) IsQueued() bool { return s.queued }

// Halt lets s move nothing more: its stream has failed.
func (o *Output) Halt(s *Sender) {
	s.halted = true
	o.remove(s)
}

// Drop forgets what s has not moved.
func (o *Output) Drop(s *Sender) {
	o.remove(s)
	s.head, s.body, s.trailer, s.sending = nil, nil, nil, false
}

// SetInitial sets the window of new streams. The user calls Enlarge for the others, with change.
func (o *Output) SetInitial(value uint32) (change Window) {
	change = Window(value) - o.initial
	o.initial = Window(value)
	return change
}

// Enlarge changes the window of a stream; see [Window.Enlarge].
func (o *Output) Enlarge(s *Sender, change Window) *Error {
	if err := s.window.Enlarge(change); err != nil {
		return err
	}
	if s.sending && !s.queued && !s.halted && s.window > 0 {
		o.push(s)
	}
	return nil
}

// SetTableSize notes the maximum size of the other side's dynamic table. The encoder never uses
// one. But if the other side has reduced it, it expects to be told so in the next field block.
func (o *Output) SetTableSize(value uint32) {
	o.reduced = o.reduced || value < fields.InitialTableBytes
}

// EndBlock is [EndFieldBlock] for a block at the end of Frames.
func (o *Output) EndBlock(start int, stream uint32, endStream bool) {
	if o.Frames = EndFieldBlock(o.Frames, start, stream, endStream); o.reduced {
		frames := bytes.Clone(o.Frames[start:])
		o.Frames = o.Frames[:start]
		o.appendBlock(frames)
	}
}

// appendBlock appends the frames of a field block, or none.
func (o *Output) appendBlock(frames []byte) {
	if len(frames) > 0 && o.reduced {
		o.reduced = false
		o.Frames = AppendWithoutTable(o.Frames, frames)
		return
	}
	o.Frames = append(o.Frames, frames...)
}

// CountAnswer notes that the last frame in Frames answers one of the other side. The error ends
// the connection.
func (o *Output) CountAnswer() *Error {
	if o.answers++; o.answers > MaxAnswers {
		return errNotRead
	}
	return nil
}

// Take returns Frames, which are empty then. The caller gives their memory back by Recycle.
func (o *Output) Take() []byte {
	b := o.Frames
	o.Frames, o.spare, o.answers = o.spare[:0], nil, 0
	return b
}

// Recycle makes b the memory for later frames.
func (o *Output) Recycle(b []byte) { o.spare = b[:0] }

// Discard drops Frames, and memory that is not in use.
func (o *Output) Discard() { o.Frames, o.spare = nil, nil }

// Fill moves frames of the queued streams to Frames, one of each in turn, as far as there is room
// and the windows allow. A stream whose own window is used up leaves the queue until Enlarge. One
// that waits for the window of the connection keeps its turn, and lets streams pass that need none.
func (o *Output) Fill() {
	var waiting Output
	for o.first != nil && len(o.Frames) < MaxOutputBytes {
		s := o.pop()
		o.appendBlock(s.head)
		s.head = nil
		cut := spend(s.body, s.endsWithBody, &s.window, &o.Window)
		if cut.isBlocked() {
			if s.window > 0 {
				waiting.push(s)
			}
			continue
		}
		o.Frames = cut.appendFrame(o.Frames, s.stream)
		s.body = cut.rest
		whole := cut.isLast()
		if whole {
			o.appendBlock(s.trailer)
			s.body, s.trailer, s.sending = nil, nil, false
		} else {
			o.push(s)
		}
		s.owner.Moved(len(cut.payload), whole, whole && s.ends)
	}
	if waiting.last != nil { // before streams that have not had a turn
		if waiting.last.next = o.first; o.first == nil {
			o.last = waiting.last
		}
		o.first = waiting.first
	}
}

func (o *Output) push(s *Sender) {
	if s.next, s.queued = nil, true; o.last == nil {
		o.first = s
	} else {
		o.last.next = s
	}
	o.last = s
}

func (o *Output) pop() *Sender {
	s := o.first
	if o.first = s.next; o.first == nil {
		o.last = nil
	}
	s.next, s.queued = nil, false
	return s
}

func (o *Output) remove(s *Sender) {
	if !s.queued {
		return
	}
	var others Output
	for o.first != nil {
		if one := o.pop(); one != s {
			others.push(one)
		}
	}
	o.first, o.last = others.first, others.last
}
