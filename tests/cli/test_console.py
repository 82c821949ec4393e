import logging

from pixelis.cli.console import configure_logging


def test_progress_goes_to_standard_output_and_warnings_to_standard_error(capsys):
    configure_logging()
    configure_logging()  # a second call adds no second line
    logger = logging.getLogger("pixelis.training.sft")
    logger.info("step %d", 3)
    logger.warning("MLflow is away")
    logger.debug("not shown")
    out, err = capsys.readouterr()
    assert (out, err) == ("step 3\n", "warning: MLflow is away\n")


def test_a_process_beside_the_first_one_shows_errors_only(capsys):
    configure_logging(logging.ERROR)
    try:
        logging.getLogger("pixelis.training.sft").info("step 3")
        assert capsys.readouterr().out == ""
    finally:
        configure_logging()
