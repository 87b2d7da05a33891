package metrics

// Class is how a request ended, by the status the client was sent.
type Class uint8

const (
	Class1xx Class = iota // informational, as the end of an upgraded connection (101)
	Class2xx
	Class3xx
	Class4xx
	Class5xx
	// ClassAborted: the client went away before it had its answer, or nothing
	// that HTTP knows was sent.
	ClassAborted

	// NumClasses is the number of classes; they count from 0.
	NumClasses = int(ClassAborted) + 1
)

// StatusClientClosedRequest is the status to observe for a request whose
// client went away. No client ever sees it; nginx made the number customary.
const StatusClientClosedRequest = 499

// ClassOf returns the class of a final status. Every status below 100 or above
// 599, and [StatusClientClosedRequest], is [ClassAborted].
func ClassOf(status int) Class {
	c := uint(status)/100 - 1
	if c > uint(Class5xx) || status == StatusClientClosedRequest {
		return ClassAborted
	}
	return Class(c)
}

// String returns "1xx" to "5xx" or "aborted".
func (c Class) String() string {
	switch c {
	case Class1xx:
		return "1xx"
	case Class2xx:
		return "2xx"
	case Class3xx:
		return "3xx"
	case Class4xx:
		return "4xx"
	case Class5xx:
		return "5xx"
	case ClassAborted:
		return "aborted"
	}
	return "unknown"
}
