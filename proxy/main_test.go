package proxy

import (
	"flag"
	"os"
	"testing"
)

// TestMain lets more tests run at a time than there are processors, unless the
// command says how many: most of them wait for a time limit to end.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", "8"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
