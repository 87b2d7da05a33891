package proxy

// A byteQueue has bytes in buffers of a pool.
type byteQueue struct {
	segments   []*buffer
	start, end int // of the bytes in the first segment and in the last one
}

var bodySegments = bufferPool(16 << 10)

func (q *byteQueue) empty() bool { return len(q.segments) == 0 }

// append appends b.
func (q *byteQueue) append(b []byte) {
	for len(b) > 0 {
		if q.empty() || q.end == len(q.segments[len(q.segments)-1].bytes) {
			q.segments = append(q.segments, bodySegments.Get().(*buffer))
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
			bodySegments.Put(first)
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
		bodySegments.Put(segment)
	}
	q.segments, q.start, q.end = q.segments[:0], 0, 0
	return n
}
