package release

import (
	"fmt"
	"maps"
	"slices"

	"sluice/config"
)

// Record calls add for each override that has changed since the last call, and counts now, with a
// reason for people and the change of the key. It must not be called concurrently.
func (s *Shares) Record(add func(reason string, diff []config.Change)) {
	counting := s.Counting()
	for _, service := range slices.Sorted(maps.Keys(counting)) {
		override, before := counting[service], s.recorded[service]
		if override.Same(before) {
			continue
		}
		if before.By == "" {
			before.Share = override.Configured
		}
		add(s.change(override, before.Share))
	}
	for _, service := range slices.Sorted(maps.Keys(s.recorded)) {
		before := s.recorded[service]
		if _, counts := counting[service]; counts {
			continue
		}
		if _, stands := s.Store.All()[before.Key()]; stands {
			counting[service] = before // its split may be to come
		} else if s.fits(before) { // else the configuration's revision says it
			override := before
			override.Share, override.By, override.Why = before.Configured, ByOperator, "the share of the configuration again"
			add(s.change(override, before.Share))
		}
	}
	s.recorded = counting
}

// change returns the reason and the difference of a revision with an override.
func (s *Shares) change(override Share, before float64) (reason string, diff []config.Change) {
	change := config.Change{
		Key:    "services." + override.Service + ".split." + override.Group,
		Before: config.Percent(before), After: config.Percent(override.Share),
	}
	by := override.By
	if override.Replica != s.options.Replica() && override.Replica != "" {
		by += " of " + override.Replica
	}
	reason = fmt.Sprintf("%s: %s", by, change)
	if change.Before == change.After {
		reason = fmt.Sprintf("%s: %s: %s stays", by, change.Key, change.After)
	}
	if override.Why != "" {
		reason += ": " + override.Why
	}
	return reason, []config.Change{change}
}
