package proxy

// A byteQueue has bytes in buffers of a pool.
type byteQueue struct {
	segments   []*buffer
	start, end int // of the bytes in the first segment and in the last one
}

// Pools of segments, for the first bytes in a queue and for more.
var (
	firstSegments = bufferPool(smallBodyBytes)
	bodySegments  = bufferPool(16 << 10)
)

func newSegment(bytes int, first bool) *buffer {
	if first && bytes <= smallBodyBytes {
		return firstSegments.Get().(*buffer)
	}
	return bodySegments.Get().(*buffer)
}

func putSegment(b *buffer) {
	if len(b.bytes) == smallBodyBytes {
		firstSegments.Put(b)
	} else {
		bodySegments.Put(b)
	}
}

func (q *byteQueue) empty() bool { return len(q.segments) == 0 }

// append appends b.
func (q *byteQueue) append(b []byte) {
	for len(b) > 0 {
		if q.empty() || q.end == len(q.segments[len(q.segments)-1].bytes) {
			q.segments = append(q.segments, newSegment(len(b), q.empty()))
			q.end = 0
		}
		n := copy(q.segments[len(q.segments)-1].bytes[q.end:], b)
		q.end += n
		b = b[n:]
	}
}

// take moves bytes to b and returns their number.
func (q *byteQueue) take(b []byte) (n int) {
	for n < len(b) && !q.empty() {
		first := q.segments[0]
		end := len(first.bytes)
		if len(q.segments) == 1 {
			end = q.end
		}
		moved := copy(b[n:], first.bytes[q.start:end])
		n += moved
		if q.start += moved; q.start == end {
			putSegment(first)
			q.segments = append(q.segments[:0], q.segments[1:]...)
			q.start = 0
		}
	}
	return n
}

// length returns the number of bytes.
func (q *byteQueue) length() (n int) {
	if q.empty() {
		return 0
	}
	for _, segment := range q.segments[:len(q.segments)-1] {
		n += len(segment.bytes)
	}
	return n + q.end - q.start
}

// drop removes all bytes and returns their number.
func (q *byteQueue) drop() int {
	n := q.length()
	for _, segment := range q.segments {
		putSegment(segment)
	}
	q.segments, q.start, q.end = q.segments[:0], 0, 0
	return n
}
