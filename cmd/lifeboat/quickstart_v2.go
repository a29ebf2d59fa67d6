package main

import "fmt"

// storyV2 is the quickstart with v2 data, from the first key to the last
// comparison.
func storyV2(s *shell) error {
	fmt.Fprintf(s.env.Stdout, "$ cd %s\n", s.dir)
	before, err := writeV2Keys(s)
	if err != nil {
		return err
	}
	if err := loseLog(s); err != nil {
		return err
	}
	return bringBackV2(s, before)
}

// writeV2Keys fills a new server, backs it up while it runs, and returns what it
// then held.
func writeV2Keys(s *shell) (keyTree, error) {
	s.say("A server of our own, on a port that the kernel picks.")
	if err := s.serve("lifeboat serve --data-dir etcd --create --listen 127.0.0.1:0"); err != nil {
		return keyTree{}, err
	}
	s.say("Some keys: plain, in order, hidden, with a time to live, changed and removed.")
	for _, line := range []string{
		`lifeboat v2 mkdir /services`,
		`lifeboat v2 set /services/web/1 10.0.0.1:80`,
		`lifeboat v2 set /services/web/2 10.0.0.2:80`,
		`for job in build test ship; do lifeboat v2 mk --in-order /queue $job; done`,
		`lifeboat v2 set /config/motd 'Ahoi, schöne neue Welt'`,
		`lifeboat v2 set /config/_secret 'not listed'`,
		`lifeboat v2 set /lock/deploy anna --ttl 3600`,
		`lifeboat v2 set /services/web/2 10.0.0.9:80 --swap-with-value 10.0.0.2:80`,
		`lifeboat v2 update /services/web/1 10.0.0.8:80`,
		`lifeboat v2 set /scratch gone && lifeboat v2 rm /scratch`,
		`lifeboat v2 ls / --recursive -p --sort`,
	} {
		if err := s.run(line); err != nil {
			return keyTree{}, err
		}
	}
	before, err := readV2Keys(s.ctx, s.url)
	if err != nil {
		return keyTree{}, err
	}
	s.say("A backup of the running server.")
	return before, s.run("lifeboat backup --data-dir etcd --backup-dir backup")
}

// loseLog stops the server and makes sure that what is left does not boot.
func loseLog(s *shell) error {
	s.say("An accident: the log is gone.")
	if err := s.kill(); err != nil {
		return err
	}
	if err := s.run("rm -r etcd/member/wal"); err != nil {
		return err
	}
	return s.refused("lifeboat serve --data-dir etcd --listen 127.0.0.1:0")
}

// bringBackV2 verifies the backup, boots it and compares.
func bringBackV2(s *shell, before keyTree) error {
	s.say("Is the backup good? Nothing is written to it.")
	if err := s.run("lifeboat verify backup"); err != nil {
		return err
	}
	s.say("Then boot it.")
	if err := s.serve("lifeboat serve --data-dir backup --listen 127.0.0.1:0"); err != nil {
		return err
	}
	if err := s.run("lifeboat v2 get /config/motd"); err != nil {
		return err
	}
	after, err := readV2Keys(s.ctx, s.url)
	if err != nil {
		return err
	}
	if err := before.same(after); err != nil {
		return err
	}
	s.say(fmt.Sprintf("Compared with the first server: all %d keys and dirs are there, with the same values,\n"+
		"# created and modified indexes and expiry times; the v2 index went on from %d.", len(before.nodes), before.index))
	return s.kill()
}
