// Package tags has what the tags of instances ask for, as values: routes and settings in
// the keys of the configuration file, and complaints about tags that ask for nothing useful.
//
// Its packages read one dialect each: native reads sluice's own tags, fabio and traefik the tags
// of the programs with these names. They are pure: the tags of one instance become a
// [Reading]. Nobody who writes a tag is trusted, so
//
//   - a tag is split into values once, and no text is built from it that is parsed again;
//   - a tag with a control character makes no route;
//   - a bad tag harms nothing but its own route;
//   - if what a tag wants to restrict cannot be understood, its route is closed: it exists,
//     and denies every request. Without it, a broader route of the same service might
//     answer the request without the restriction.
package tags
