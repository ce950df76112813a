"""Commands about settings: show what is in force, check what is wrong."""

import sys

from cli.console import out, safe
from cli.options import Config, Overrides, config_name, settings_of


def config_show(config: Config = None, overrides: Overrides = None) -> None:
    """Print the settings in force: defaults, file, environment and --set merged; the password masked."""
    import yaml

    sys.stdout.write(
        yaml.safe_dump(settings_of(config, overrides).public(), sort_keys=False, allow_unicode=True)
    )


def config_check(config: Config = None, overrides: Overrides = None) -> None:
    """Check settings, paths and the model package without starting anything."""
    from classifiers import Predictor
    from configs.loading import ConfigError, check_paths
    from operations.inspection.checkpoints import open_signer
    from operations.inspection.evidence import explainer_for
    from operations.inspection.run import checked_package
    from operations.reporting.seal import check_seal

    settings = settings_of(config, overrides)
    if problems := check_paths(settings):
        raise ConfigError("\n".join(f"{config_name(config)}: {problem}" for problem in problems))
    package = checked_package(settings)
    explainer_for(Predictor(package, device=settings.model.device), settings.explainer)
    open_signer(settings)
    seal = check_seal(settings.report.signature)
    out.print(f"settings are in order; model {safe(str(package.path))} {package.digest[:12]}")
    if seal is not None:
        vouching = "itself alone" if seal.self_signed else safe(seal.issuer)
        out.print(
            f"reports are sealed by {safe(seal.subject)}, for whom {vouching} vouches until "
            f"{seal.not_after:%Y-%m-%d}"
        )
