package socket

// A ByteQueue has bytes in buffers of pools.
type ByteQueue struct {
	segments   []*Buffer
	start, end int // of the bytes in the first segment and in the last one
}

func (q *ByteQueue) Empty() bool { return len(q.segments) == 0 }

// Append appends b.
func (q *ByteQueue) Append(b []byte) {
	for len(b) > 0 {
		if q.Empty() || q.end == len(q.segments[len(q.segments)-1].Bytes) {
			size := RequestBufferBytes
			if q.Empty() && len(b) <= SmallBodyBytes {
				size = SmallBodyBytes
			}
			q.segments = append(q.segments, NewBuffer(size))
			q.end = 0
		}
		n := copy(q.segments[len(q.segments)-1].Bytes[q.end:], b)
		q.end += n
		b = b[n:]
	}
}

// Take moves bytes to b and returns their number.
func (q *ByteQueue) Take(b []byte) (n int) {
	for n < len(b) && !q.Empty() {
		first := q.segments[0]
		end := len(first.Bytes)
		if len(q.segments) == 1 {
			end = q.end
		}
		moved := copy(b[n:], first.Bytes[q.start:end])
		n += moved
		if q.start += moved; q.start == end {
			first.Free()
			q.segments = append(q.segments[:0], q.segments[1:]...)
			q.start = 0
		}
	}
	return n
}

// Length returns the number of bytes.
func (q *ByteQueue) Length() (n int) {
	if q.Empty() {
		return 0
	}
	for _, segment := range q.segments[:len(q.segments)-1] {
		n += len(segment.Bytes)
	}
	return n + q.end - q.start
}

// Drop removes all bytes and returns their number.
func (q *ByteQueue) Drop() int {
	n := q.Length()
	for _, segment := range q.segments {
		segment.Free()
	}
	q.segments, q.start, q.end = q.segments[:0], 0, 0
	return n
}
