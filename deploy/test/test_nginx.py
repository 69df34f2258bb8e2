"""The cache in front of the services: nginx itself runs with it in the end-to-end tests; here it is read."""

import re
import tempfile
import unittest

import crossplane

from support import DEPLOY


class Nginx(unittest.TestCase):
    def test_it_parses_and_no_key_depends_on_a_signature(self):
        text = (DEPLOY / "nginx/cache.conf").read_text()
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as without_map:
            # What stands in a map are values; crossplane takes them for directives that it does not know.
            without_map.write(re.sub(r"(?ms)^map .*?^}$", "", text))
            without_map.flush()
            parsed = crossplane.parse(without_map.name, strict=True, check_ctx=False)
        self.assertEqual((parsed["status"], parsed["errors"]), ("ok", []))
        keys = [line for line in text.splitlines() if "proxy_cache_key" in line]
        self.assertEqual(len(keys), 2)
        for key in keys:
            self.assertNotRegex(key, r"arg_(sig|exp)|\$args|request_uri")


if __name__ == "__main__":
    unittest.main()
