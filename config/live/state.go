package live

// SourceState is the state of a source in one word.
type SourceState string

const (
	SourceInUse   SourceState = "in_use"
	SourcePinned  SourceState = "pinned"
	SourceRefused SourceState = "refused" // its present documents cannot be used
	SourceStale   SourceState = "stale"   // it cannot be read
	SourceWaiting SourceState = "waiting" // it never could
)

// State returns the state in one word.
func (s *Status) State() SourceState {
	switch {
	case s.Stale != nil && s.Unused:
		return SourceWaiting
	case s.Stale != nil:
		return SourceStale
	case s.Refused != nil:
		return SourceRefused
	case s.Source.Pin != nil:
		return SourcePinned
	}
	return SourceInUse
}
