package live

import (
	"context"

	"sluice/config"
)

// Files are the files that match a pattern: see config.Dynamic.
type Files struct {
	Pattern string
	// Seen is as in config.Watcher: a reload reads the files too. nil: nobody else does.
	Seen func() (hash string, readings uint64)
	// Problem is called if the file system does not report changes, which are then found
	// within 10 seconds.
	Problem func(error)
}

// Run implements Source.
func (f *Files) Run(ctx context.Context, report func(Report)) error {
	w := config.Watcher{File: f.Pattern, Pattern: true, Seen: f.Seen, Problem: f.Problem}
	read := func() {
		said, err := config.ReadFiles(f.Pattern)
		w.Hash = said.Revision
		if err != nil {
			w.Hash = err.Error()
		}
		report(Report{Said: said, Err: err})
	}
	w.Changed = read
	read()
	w.Run(ctx)
	return ctx.Err()
}
