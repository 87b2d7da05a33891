package consul

import (
	"flag"
	"os"
	"testing"
)

// TestMain runs more parallel tests than there are processors, unless the command sets the
// number: tests with a real Consul mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", "6"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
