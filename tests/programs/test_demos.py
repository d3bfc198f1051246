# SPDX-License-Identifier: MIT
"""What the README and the documentation show must come out as they say."""
import os
import subprocess

import pytest

from harness import BUILD, ROOT


@pytest.mark.limit(300)
def test_demo_pressure():
    done = subprocess.run([os.path.join(ROOT, "tools", "demo-pressure")], env={**os.environ, "BUILD": BUILD},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The scene came out as it should." in done.stdout
