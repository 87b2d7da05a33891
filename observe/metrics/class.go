package metrics

// Class is the result of a request, by the status sent to the client.
type Class uint8

const (
	Class1xx Class = iota // an upgraded connection (101)
	Class2xx
	Class3xx
	Class4xx
	Class5xx
	// ClassAborted: the client left before the end of the response, or the status is
	// not one of HTTP.
	ClassAborted

	// NumClasses is the number of classes; they count from 0.
	NumClasses = int(ClassAborted) + 1
)

// StatusClientClosedRequest is nginx's status for a request whose client left. It is
// logged and never sent.
const StatusClientClosedRequest = 499

// ClassOf returns the class of a final status. That of 600 to 999, which apps send and HTTP does
// not have, is 5xx (RFC 9110, section 15). A status below 100 or above 999, and
// [StatusClientClosedRequest], is [ClassAborted].
func ClassOf(status int) Class {
	c := uint(status)/100 - 1
	if c >= 9 || status == StatusClientClosedRequest {
		return ClassAborted
	}
	return min(Class(c), Class5xx)
}

// String returns "1xx" to "5xx" or "aborted".
func (c Class) String() string {
	return [...]string{"1xx", "2xx", "3xx", "4xx", "5xx", "aborted"}[c]
}
