package live

import (
	"context"

	"sluice/config"
)

// Files are the files that match a pattern: see config.Dynamic.
type Files struct {
	Pattern string
	// Seen is as in config.Watcher, of what was reported last: a reload reads the files too.
	Seen func() (hash string, readings uint64)
	// Problem is called if the file system does not report changes, which are then found
	// within 10 seconds.
	Problem func(error)
}

// Run implements Source.
func (f *Files) Run(ctx context.Context, report func(Report)) error {
	read := func() {
		said, err := config.ReadFiles(f.Pattern)
		report(Report{Said: said, Err: err})
	}
	w := config.Watcher{File: f.Pattern, Pattern: true, Seen: f.Seen, Changed: read, Problem: f.Problem}
	read()
	w.Run(ctx)
	return ctx.Err()
}
